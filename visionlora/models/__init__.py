"""Plain models by name, from timm and torchvision, with weights from a hub or a local file."""
