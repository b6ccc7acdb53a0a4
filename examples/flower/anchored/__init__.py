"""An example of a Flower app with anchors: copy it, and put your own network and data into task.py."""
