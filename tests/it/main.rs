//! Tests that run the real binary, or several crates together. Each module tests one promise that
//! the project makes.

mod activity;
mod anchor;
mod cli;
mod corpus;
mod daemon;
mod demo;
mod deploy;
mod differential;
mod docs;
mod evidence;
mod exactly_once;
mod falco_labels;
mod false_alarms;
mod finding_kinds;
mod findings;
mod firehose;
mod golden;
mod imports;
mod ingest;
mod kafka;
mod layers;
mod meaning;
mod next_steps;
mod outsiders;
mod proof;
mod query;
mod retention;
mod rules;
mod run;
mod s3;
mod services;
mod sinks;
mod tail;
mod troubles;
mod webhook;
