"""Training losses, as functions of tensors. The paper's are ftd, tv_lpips and attention."""
