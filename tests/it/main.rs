//! The daemon as a process, over real sockets, with the local Azure of devkit.
//!
//! Every test ends when no document differs from the hub's twin.

mod answers;
mod bad_input;
mod blob;
mod blob_restart;
mod blob_token;
mod browser;
mod check;
mod checkpoint;
mod command_line;
mod consistency;
mod counts;
mod dead_letter_blobs;
mod dead_letters;
mod fault;
mod figures;
mod flag;
mod foreign;
mod health;
mod hubs;
mod javascript;
mod log_lines;
mod loss;
mod main_job;
mod modules;
mod monitoring;
mod network;
mod one_twin;
mod otlp;
mod outage;
mod pages;
mod partitions;
mod poison;
mod query;
mod read_api;
mod registry;
mod replicas;
mod restart;
mod selection;
mod start;
mod status;
mod token;
mod twins;
mod world;
