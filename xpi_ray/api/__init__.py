"""The interface that clients see, without a transport: messages, tensors, images, deadlines."""
