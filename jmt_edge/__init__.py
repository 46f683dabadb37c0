"""The Joint Multimodal Transformer at the edge. A research prototype; not for clinical use."""

__version__ = "0.1.0"
