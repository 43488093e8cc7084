"""What runs a padded batch: ONNX Runtime, or torch where there is no valid export."""
