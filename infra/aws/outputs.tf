output "dvc_remote" {
  description = "OSTEOFLOW_DVC_REMOTE"
  value       = "s3://${aws_s3_bucket.data.bucket}/dvc"
}

output "mlflow_artifact_root" {
  description = "MLFLOW_DEFAULT_ARTIFACT_ROOT of the registry"
  value       = "s3://${aws_s3_bucket.data.bucket}/mlflow"
}

output "evidence_bucket" {
  description = "Where the ledger's copies go"
  value       = aws_s3_bucket.evidence.bucket
}

output "alerts_topic" {
  description = "ARN of the topic"
  value       = aws_sns_topic.alerts.arn
}

output "policies" {
  description = "IAM policies to attach"
  value = {
    worker   = aws_iam_policy.worker.arn
    registry = aws_iam_policy.registry.arn
  }
}
