"""What fires when: requests on their way through pipelines."""
