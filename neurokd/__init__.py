"""The training side: spiking students, distillation, quantization-aware fine-tuning, NIR export."""
