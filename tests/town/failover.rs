//! How long an address is without an owner when its owner is killed, by size of the town and by loss: a table to review.

use std::fmt::Write;
use std::time::Duration;

use crate::town::{Town, Weather};
