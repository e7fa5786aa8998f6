"""What quantization costs a model that runs: output errors, accumulated errors, loss and KL.

Not here: errors of single tensors (scanner.py). Everything rests on `fake.py`, which lets a live model compute with
quantized weights, inputs, or both, and puts it back bit for bit.
"""
