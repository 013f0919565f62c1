//! A sans-io DPoS chain with BFT finality, its store, and its simulator.
