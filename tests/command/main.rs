//! The `uspx` command from outside: what it prints, where it ends, and what it leaves alone when it refuses.

mod causes;
mod configs;
mod engines;
mod forms;
mod inputs;
mod ledger;
mod llama_cpp;
mod others_gguf;
mod students;
mod support;
