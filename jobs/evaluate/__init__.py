"""The job jobs.evaluate; its commands are the modules beside this one."""
