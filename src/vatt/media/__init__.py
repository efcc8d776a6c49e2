"""One media file: its frames, audio and captions on one clock; encoding the stored form."""
