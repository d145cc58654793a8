//! Tests that drive the real binary, and the crates together. One module per promise.

mod corpus;
mod differential;
mod falco_labels;
mod false_alarms;
mod ingest;
mod layers;
mod next_steps;
mod outsiders;
mod run;
