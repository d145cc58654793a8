//! Tests that drive the real binary, and the crates together. One module per promise.

mod cli;
mod corpus;
mod daemon;
mod demo;
mod deploy;
mod differential;
mod docs;
mod exactly_once;
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
mod rules;
mod run;
mod s3;
mod services;
mod tail;
mod webhook;
