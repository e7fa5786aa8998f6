"""What quantization costs a model that runs: output errors, accumulated errors, loss and KL.

Not here: error statistics of tensors (srdd.runs.scans), and the fake quantization under it all (srdd.models.fake).
"""
