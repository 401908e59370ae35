"""Settings for all tests."""

import os

import torch

# Tensors here are small: a second thread saves nothing, and waits for its turn on a busy machine.
# More threads split sums in other places, so .ci/machines asks for them.
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
