"""The process: its signals and sockets, and several of it."""
