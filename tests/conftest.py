"""Settings for all tests."""

import torch

# Tensors here are small: a second thread saves nothing, and waits for its turn on a busy machine.
torch.set_num_threads(1)
