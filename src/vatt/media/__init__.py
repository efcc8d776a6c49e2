"""Files → frames, waveforms and timed text."""
