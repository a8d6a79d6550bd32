// Event Grid tells the app of blobs in its drop boxes. After the app's code is deployed: the key of
// the blob extension's webhook does not exist before, and Event Grid asks the webhook to agree.
targetScope = 'resourceGroup'

@description('Outputs APP_NAME and STORAGE_ACCOUNT of main.bicep.')
param appName string
param storageAccountName string
param location string = resourceGroup().location

var boxes = [
  { function: 'dropbox', prefix: '/blobServices/default/containers/dropbox/blobs/' }
  { function: 'training_inbox', prefix: '/blobServices/default/containers/training/blobs/inbox/' }
]

resource app 'Microsoft.Web/sites@2024-04-01' existing = {
  name: appName
}

resource account 'Microsoft.Storage/storageAccounts@2024-01-01' existing = {
  name: storageAccountName
}

resource topic 'Microsoft.EventGrid/systemTopics@2025-02-15' = {
  name: '${storageAccountName}-blobs'
  location: location
  properties: {
    source: account.id
    topicType: 'Microsoft.Storage.StorageAccounts'
  }
}

resource subscriptions 'Microsoft.EventGrid/systemTopics/eventSubscriptions@2025-02-15' = [
  for box in boxes: {
    parent: topic
    name: replace(box.function, '_', '-')
    properties: {
      destination: {
        endpointType: 'WebHook'
        properties: {
          endpointUrl: 'https://${app.properties.defaultHostName}/runtime/webhooks/blobs?functionName=Host.Functions.${box.function}&code=${listKeys('${app.id}/host/default', '2024-04-01').systemKeys.blobs_extension}'
        }
      }
      eventDeliverySchema: 'EventGridSchema'
      filter: {
        includedEventTypes: ['Microsoft.Storage.BlobCreated']
        subjectBeginsWith: box.prefix
        // Commits alone: a file that is written in pieces is not told of before its end.
        advancedFilters: [
          {
            operatorType: 'StringIn'
            key: 'data.api'
            values: ['PutBlob', 'PutBlockList', 'FlushWithClose', 'CopyBlob', 'SftpCommit']
          }
        ]
      }
      retryPolicy: { maxDeliveryAttempts: 30, eventTimeToLiveInMinutes: 1440 }
    }
  }
]
