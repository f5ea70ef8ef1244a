"""The program that starts, stops and reaps the processes of Shell tasks, in a process of its own.

Run as `python -I -S <this directory> FD [LOCK]`, FD a stream socket to the server, LOCK a
descriptor to hold until the last of the processes has ended; it imports nothing of TaskHub, and
its own modules by their bare names. One thread, so chdir and resource limits can be set for one
child at a time, and a child's parent never goes away before this process does. When the server is
gone, so is every running tree.
"""
