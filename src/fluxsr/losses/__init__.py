"""The paper's training losses and the perceptual distances that TV-LPIPS needs, as functions of tensors."""
