"""The discriminator: a mixture-of-experts vision-language model with one scalar head, made from a dense model."""
