"""A federation between real machines, on Flower: FedPFN and FedPNU with only the live weights on the wire.

`coordinator` (the server's side) and `participant` (a client's) are plain functions of arrays and do not know Flower;
`strategy` and `apps` fit them into Flower's Message API.
"""
