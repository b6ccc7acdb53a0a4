"""What a report is made of: blocks, charts, one file for each kind of result, and the page they stand on."""
