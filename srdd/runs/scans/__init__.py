"""The scan: error statistics of weights, Linear inputs and layer outputs, of a model or of a checkpoint's files."""
