"""What people start: the command line. Imports of torch stay inside the commands."""
