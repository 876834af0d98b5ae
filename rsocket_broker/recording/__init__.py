"""Sessions written down, and served again without the app: what a recording holds, and the app that it stands for."""
