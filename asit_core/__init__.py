"""Self-supervised spectrogram transformers: models, losses, masks and probes. Never imports Ray."""
