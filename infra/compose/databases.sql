-- Run once, when the volume is empty. One database a program, so that each can be restored by itself.
CREATE DATABASE prefect;
CREATE DATABASE mlflow;
CREATE DATABASE mlflow_auth;
CREATE DATABASE osteoflow;
