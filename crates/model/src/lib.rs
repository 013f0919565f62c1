//! Topology files, units, the radio and cost models of the paper, and the plan of a network.
