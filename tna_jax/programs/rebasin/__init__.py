"""`tna rebasin`."""
