//! Tests of the listener, its log and its source together, over real connections, and across kills.

mod http;
mod log;
