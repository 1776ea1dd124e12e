"""Graphs as files: those above one message of protobuf, whose weights lie in a file alongside."""
