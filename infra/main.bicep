// Slicewatch on Azure Functions, Flex Consumption. The Event Grid subscriptions are apart
// (events.bicep): the key of their webhook exists once the app's code is deployed.
targetScope = 'resourceGroup'

@description('Part of the names of all resources: lower-case letters and digits.')
@minLength(3)
@maxLength(11)
param environmentName string

param location string = resourceGroup().location

@description('Application (client) id of the app registration that people and senders sign in to. Its app roles are the values of slicewatch.identity.Role.')
param entraClientId string

@description('Object id of who may write the custody key into the vault; empty: nobody yet.')
param keyOfficerObjectId string = ''

@description('Name of the secret with the Ed25519 private key (PEM) of the custody log. It is put there by hand.')
param custodySecretName string = 'custody-key'

@description('Memory of an instance in MB. 2048 has one core, which a batch of slices fills.')
@allowed([512, 2048, 4096])
param instanceMemoryMB int = 2048

@minValue(1)
@maxValue(1000)
param maximumInstanceCount int = 40

var suffix = take(uniqueString(subscription().id, resourceGroup().id, environmentName), 6)
var tags = { 'azd-env-name': environmentName }
var packages = 'packages'

// Roles that are built in: https://learn.microsoft.com/azure/role-based-access-control/built-in-roles
var blobDataOwner = 'b7e6dc6d-f1e8-4753-8033-0f276bb0955b'
var queueDataContributor = '974c5e8b-45b9-4653-ba55-5f855dd0fb88'
var tableDataContributor = '0a9a7e1f-b9d0-4cc4-a60d-0319b160aaa3'
var keyVaultSecretsUser = '4633458b-17de-408a-b874-0445c86b69e6'
var keyVaultSecretsOfficer = 'b86a8fe4-44ce-4948-aee5-eccb2c155cd7'

// --- storage: studies, reviews, custody log, durable state, and the deployed package

resource account 'Microsoft.Storage/storageAccounts@2024-01-01' = {
  name: 'slw${environmentName}${suffix}'
  location: location
  tags: tags
  kind: 'StorageV2'
  sku: { name: 'Standard_ZRS' }
  properties: {
    allowBlobPublicAccess: false
    allowSharedKeyAccess: false // managed identities alone
    minimumTlsVersion: 'TLS1_2'
    supportsHttpsTrafficOnly: true
  }
}

resource blobs 'Microsoft.Storage/storageAccounts/blobServices@2024-01-01' = {
  parent: account
  name: 'default'
  properties: {
    isVersioningEnabled: true // originals are never altered; what is overwritten all the same stays
    deleteRetentionPolicy: { enabled: true, days: 30 }
  }
}

// The app makes its other containers, tables and queues on first use.
resource container 'Microsoft.Storage/storageAccounts/blobServices/containers@2024-01-01' = [
  for name in [packages, 'dropbox', 'training']: {
    parent: blobs
    name: name
  }
]

// --- the custody key

resource vault 'Microsoft.KeyVault/vaults@2023-07-01' = {
  name: 'slw-${environmentName}-${suffix}'
  location: location
  tags: tags
  properties: {
    tenantId: tenant().tenantId
    sku: { family: 'A', name: 'standard' }
    enableRbacAuthorization: true
    enablePurgeProtection: true // without its key a custody log cannot be signed further
  }
}

// --- logs

resource workspace 'Microsoft.OperationalInsights/workspaces@2023-09-01' = {
  name: 'slw-${environmentName}-${suffix}-logs'
  location: location
  tags: tags
  properties: { sku: { name: 'PerGB2018' }, retentionInDays: 90 }
}

resource insights 'Microsoft.Insights/components@2020-02-02' = {
  name: 'slw-${environmentName}-${suffix}-insights'
  location: location
  tags: tags
  kind: 'web'
  properties: { Application_Type: 'web', WorkspaceResourceId: workspace.id }
}

// --- the app

resource plan 'Microsoft.Web/serverfarms@2024-04-01' = {
  name: 'slw-${environmentName}-${suffix}-plan'
  location: location
  tags: tags
  kind: 'functionapp'
  sku: { name: 'FC1', tier: 'FlexConsumption' }
  properties: { reserved: true }
}

resource app 'Microsoft.Web/sites@2024-04-01' = {
  name: 'slw-${environmentName}-${suffix}'
  location: location
  tags: union(tags, { 'azd-service-name': 'slicewatch' })
  kind: 'functionapp,linux'
  identity: { type: 'SystemAssigned' }
  properties: {
    serverFarmId: plan.id
    httpsOnly: true
    functionAppConfig: {
      deployment: {
        storage: {
          type: 'blobContainer'
          value: '${account.properties.primaryEndpoints.blob}${packages}'
          authentication: { type: 'SystemAssignedIdentity' }
        }
      }
      runtime: { name: 'python', version: '3.13' }
      scaleAndConcurrency: {
        instanceMemoryMB: instanceMemoryMB
        maximumInstanceCount: maximumInstanceCount
      }
    }
  }
}

resource appSettings 'Microsoft.Web/sites/config@2024-04-01' = {
  parent: app
  name: 'appsettings'
  properties: {
    AzureWebJobsStorage__accountName: account.name
    APPLICATIONINSIGHTS_CONNECTION_STRING: insights.properties.ConnectionString
    PYTHON_THREADPOOL_THREAD_COUNT: '8'
    SLICEWATCH_STORAGE_ACCOUNT: account.name
    // The triggers' connection, see settings.connection_setting.
    SLICEWATCH_STORAGE__blobServiceUri: account.properties.primaryEndpoints.blob
    SLICEWATCH_STORAGE__queueServiceUri: account.properties.primaryEndpoints.queue
    SLICEWATCH_DROPBOX_SOURCE: 'EventGrid' // Flex Consumption has no container scan
    SLICEWATCH_CUSTODY_KEY: '@Microsoft.KeyVault(VaultName=${vault.name};SecretName=${custodySecretName})'
  }
  dependsOn: [accountRoles, secretsRole] // the app refuses to start with a key it cannot read
}

// Who somebody is: App Service authentication. What they may do, the app decides by their roles.
resource authentication 'Microsoft.Web/sites/config@2024-04-01' = {
  parent: app
  name: 'authsettingsV2'
  properties: {
    platform: { enabled: true }
    globalValidation: {
      requireAuthentication: true
      unauthenticatedClientAction: 'Return401'
      // Health tells nothing; the webhooks of the runtime ask for keys of their own.
      excludedPaths: ['/api/health', '/runtime/webhooks/*']
    }
    identityProviders: {
      azureActiveDirectory: {
        enabled: true
        registration: {
          clientId: entraClientId
          openIdIssuer: '${environment().authentication.loginEndpoint}${tenant().tenantId}/v2.0'
        }
        validation: { allowedAudiences: ['api://${entraClientId}', entraClientId] }
      }
    }
    login: { tokenStore: { enabled: false } }
  }
}

// --- who may what

resource accountRoles 'Microsoft.Authorization/roleAssignments@2022-04-01' = [
  for role in [blobDataOwner, queueDataContributor, tableDataContributor]: {
    name: guid(account.id, app.id, role)
    scope: account
    properties: {
      principalId: app.identity.principalId
      principalType: 'ServicePrincipal'
      roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', role)
    }
  }
]

resource secretsRole 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(vault.id, app.id, keyVaultSecretsUser)
  scope: vault
  properties: {
    principalId: app.identity.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', keyVaultSecretsUser)
  }
}

resource officerRole 'Microsoft.Authorization/roleAssignments@2022-04-01' = if (!empty(keyOfficerObjectId)) {
  name: guid(vault.id, keyOfficerObjectId, keyVaultSecretsOfficer)
  scope: vault
  properties: {
    principalId: keyOfficerObjectId
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', keyVaultSecretsOfficer)
  }
}

output APP_NAME string = app.name
output APP_URL string = 'https://${app.properties.defaultHostName}'
output STORAGE_ACCOUNT string = account.name
output KEY_VAULT string = vault.name
