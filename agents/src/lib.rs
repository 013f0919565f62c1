//! The torch side of dtwn: the CNN, local training, and the dtwn-agent binary.
