"""Calling other models: in this process or on another V2 server."""
