"""Making a carry small: quantisers, lossless coders, and codecs that join them."""
