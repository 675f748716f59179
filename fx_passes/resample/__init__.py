"""What a shared convolution and its surroundings compute: up-sampling, filter, down-sampling."""
