"""How a step is called: in this process, on another server, as one of several, in a span."""
