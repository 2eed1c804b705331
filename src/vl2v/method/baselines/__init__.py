"""What a user would do instead, on the same loop, data, averaging and selection. One file each."""
