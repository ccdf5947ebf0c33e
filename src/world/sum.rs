//! The World: the sum of all facts. Floor 1.
pub struct World;
pub struct Touched;
