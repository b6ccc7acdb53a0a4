"""Devices, processes, memory and live trackers of a program."""
