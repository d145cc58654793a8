//! Tests that drive the real binary, and the crates together. One module per promise.

mod cli;
mod corpus;
mod demo;
mod differential;
mod docs;
mod falco_labels;
mod false_alarms;
mod findings;
mod firehose;
mod ingest;
mod kafka;
mod layers;
mod next_steps;
mod outsiders;
mod query;
mod run;
mod services;
