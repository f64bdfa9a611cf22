"""What a decoder must know besides the coded symbols, and its bytes."""
