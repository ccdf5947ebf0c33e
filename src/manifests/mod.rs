//! Life without an API server.
