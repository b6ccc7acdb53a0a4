"""The example app, some of whose clients send nonsense."""
