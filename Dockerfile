# docker build -t transformer-template . && docker run -it transformer-template
FROM python:3.11
WORKDIR /workspace
COPY . .
ENTRYPOINT ["./run.sh"]
